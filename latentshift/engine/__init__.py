"""The loop that runs any strategy on any pair, in chunks of independent rows. It knows no method by name."""
