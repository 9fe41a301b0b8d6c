"""The served network, its session and its answers, without PyTorch; imports pipeline."""
