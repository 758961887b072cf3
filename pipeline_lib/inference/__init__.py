"""What trained models are used for: anomaly maps, samples, embeddings, translations."""
