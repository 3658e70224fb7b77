"""Copies of images elsewhere: a walk from a tag, and what of it another registry lacks, sent there."""
