"""What Kratos calls: handlers that check a call, read it, and answer in Kratos' own form."""
