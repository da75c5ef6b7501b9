import torch

# The tests' tensors are tiny: more threads would only get into each other's way.
torch.set_num_threads(1)
