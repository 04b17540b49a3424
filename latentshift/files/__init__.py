"""Reading what strangers wrote: pair folders, checkpoints, image sets. Nothing here runs code from a file."""
