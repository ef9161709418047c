"""Text as a language model's condition: encoders, tokenizers, stored states, dropout."""
