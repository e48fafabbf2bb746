"""The question which training is best: trained variants compared over seeds and problems."""
