"""The small classic GANs: pytorch-gan-collections, AdvLatGAN, mimicry, the PyTorch DCGAN example and its copies."""
