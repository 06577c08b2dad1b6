"""Models that stock libraries load: inspection, adapters, logits, export."""
