"""Our engines beside other people's."""
