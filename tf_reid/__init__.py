"""Person re-identification with generative and adversarial learning, in TensorFlow and Keras."""
