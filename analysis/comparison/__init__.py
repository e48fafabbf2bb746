"""Which training is best: trained variants compared over seeds and problems."""
