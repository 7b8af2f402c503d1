"""What a meta-step costs here, beside other implementations and beside the arithmetic it cannot do without."""
