"""Slalom."""
