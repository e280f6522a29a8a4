"""What is between nodes: links, latency, processors, and the model of gossipsub over them."""
