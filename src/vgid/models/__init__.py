"""Models as stock libraries load them: inspection, adapters, logits, export."""
