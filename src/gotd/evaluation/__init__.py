"""From predictions to numbers; the mathematics imports nothing but NumPy."""
