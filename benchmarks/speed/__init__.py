"""`make bench`: the same work in rltrain and in other trainers, side by side in one sitting."""
