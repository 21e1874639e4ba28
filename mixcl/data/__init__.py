"""Where volumes come from: the registry, the phantoms, the preparation, the store and the splits."""
