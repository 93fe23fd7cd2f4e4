"""Is the text garbled?"""
