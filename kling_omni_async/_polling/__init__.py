"""Asks for tasks until each is done; knows nothing of images."""
