"""Distillation: the losses, the teacher as it is asked, and the stage that trains a student."""
