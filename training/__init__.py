"""The engine: pure PyTorch. A task document goes in; messages and files come out. It knows nothing of jobs."""
