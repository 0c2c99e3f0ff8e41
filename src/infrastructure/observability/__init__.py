"""What a process shows to those who operate it: metrics, traces, health and errors."""
