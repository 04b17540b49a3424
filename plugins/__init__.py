"""Model families as plug-ins: networks and recognition, nothing else."""
