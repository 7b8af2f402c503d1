"""Meta-steps beside the paper's sinusoid one: convolutions, the LSTM rule; and what saving training state costs."""
