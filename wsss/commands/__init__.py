"""Commands of ``wsss`` that are no stages: one module each, registered by ``register``."""
