"""What a step costs on this machine: the networks, methods and columns of the papers' overhead table, measured side by side."""
