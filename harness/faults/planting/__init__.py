"""How a fault is put into a checkpoint, a load or a process."""
