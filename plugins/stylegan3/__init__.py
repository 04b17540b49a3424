"""StyleGAN3, configurations T and R: networks and recognition."""
