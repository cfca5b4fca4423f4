"""What a configuration will cost: jobs, hours, disk and memory, before anything runs."""
