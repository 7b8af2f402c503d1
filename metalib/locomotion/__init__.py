"""Locomotion tasks: bodies stepped together, their goals and rewards, policies, and the rollouts they make."""
