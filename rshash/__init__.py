"""Hash learning for satellite imagery: features, MrHash, codes, search and evaluation."""
