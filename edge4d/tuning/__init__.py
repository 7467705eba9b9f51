"""Distillation: a rewritten network learns from the original."""
