"""The demo: a small model memorises fictional people, forgets some of them, and is compared with one that was never trained on them."""
