"""``python -m rlvo_lib.dictionary`` renders ``data_dictionary.md``."""

from rlvo_lib.dictionary.page import main

if __name__ == "__main__":
    main()
