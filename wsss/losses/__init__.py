"""Pure loss functions on plain tensors."""
