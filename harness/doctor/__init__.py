"""Does this very stack compute pruned models right, in every way of loading that this machine has?"""
