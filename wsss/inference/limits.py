"""How large a photo the network sees."""

# More pixels than this add time and memory, not detail that networks of 256 to 512 px crops know.
LONGEST_SIDE = 1024
