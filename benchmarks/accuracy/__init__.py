"""The paper's tables III and IV, runnable: every structure trained from scratch, and pre-trained then fine-tuned."""
