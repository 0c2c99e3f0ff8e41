"""Worker processes: in-flight deliveries, time limits, supervision."""
