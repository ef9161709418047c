"""Text to conditions of a language model: encoders, tokenizers, stored embeddings, dropout."""
