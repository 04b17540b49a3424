"""BigGAN: the networks of BigGAN-PyTorch (G, G_ema, D) and of pytorch-pretrained-BigGAN (G only)."""
