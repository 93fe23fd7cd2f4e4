"""Choose a plan under a budget: by one ranking, by removing the least missed again and again, or by a beam."""
