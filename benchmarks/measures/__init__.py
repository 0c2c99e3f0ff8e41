"""The measures, one file each: what is done, timed and checked. All give what JSON can hold."""
