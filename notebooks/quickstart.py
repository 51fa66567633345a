# %% [markdown]
# # Quickstart

# %%
import mgca

mgca.__name__
