"""Ways by which a text reaches the model of this session without being asked for."""
