"""StyleGAN2 and StyleGAN2-ada: networks and recognition."""
