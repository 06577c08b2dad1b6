from tests.attacks.conftest import base, ignorant, known

__all__ = ["base", "ignorant", "known"]
