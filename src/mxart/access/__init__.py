"""Who may what: tokens, the scopes in them, and what is granted."""
